"""`python -m ocl_bench` is `ocl-bench`."""

from ocl_bench.cli import main

if __name__ == "__main__":
    main(prog_name="ocl-bench")
