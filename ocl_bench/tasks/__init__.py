"""What is asked: task files, their sources, and the records built from them."""
