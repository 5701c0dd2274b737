"""Teachers that can be asked: served elsewhere, run in this process, or made up."""
