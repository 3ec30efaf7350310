"""Frames from and to ffmpeg, in segments that survive a kill."""
