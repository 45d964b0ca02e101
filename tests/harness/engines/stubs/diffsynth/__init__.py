"""A stub of DiffSynth-Studio: see pipelines/wan_video.py."""
