"""The commands beside the main job, one file each; `preceptor.cli` puts them together."""
