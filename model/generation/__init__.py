"""What comes next in a text or an array, drawn place by place. Only the command line may import it."""
