"""Studies: grids of runs that make one figure of the paper, described as data."""
