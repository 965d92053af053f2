"""A world of points on a line, in which any learner can be asked whether it shows OCL and meta-OCL."""
