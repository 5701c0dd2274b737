"""The commands beside the main job, one file each; `preceptor.cli.app` puts them together."""
