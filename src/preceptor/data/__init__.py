"""Read responses and instructions from files of any layout."""
