"""The checks of a submission, each of which notes what is wrong in a `Checked`."""
