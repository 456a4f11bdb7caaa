"""Limits of video and audio files that the processes on both sides of the boundary share."""

# A day: a file that declares more is damaged, and the number would not fit its column.
MAX_MILLISECONDS = 86_400_000
# More than 8K; a decoded frame takes 60 MB.
MAX_FRAME_PIXELS = 40_000_000
# Frames of a preview in a row, and rows.
SHEET_COLUMNS, SHEET_ROWS = 4, 4
