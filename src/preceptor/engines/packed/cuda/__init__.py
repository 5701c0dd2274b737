"""What the packed engine does differently on a CUDA device."""
