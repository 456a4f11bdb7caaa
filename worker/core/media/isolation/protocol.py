"""What the processes on both sides of the boundary share. Imports nothing that a process of ours would not have."""

# The child writes this byte when its task has begun. Without it, the task never reached a child and is given out again.
BEGUN = b"."
# First byte of a message to the server: the decoders that it loads before it forks.
IMAGES, MEDIA = b"i", b"m"
MAX_TASK_BYTES = 65_536


class UnusableFileError(Exception):
    """(in a child) The file cannot be used. The message is the name of a reason."""
