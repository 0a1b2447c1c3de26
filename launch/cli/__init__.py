"""The command `perceiver`: options and output. What it does is in the other folders."""
