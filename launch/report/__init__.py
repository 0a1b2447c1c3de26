"""What runs did, for people: status, logs, pictures of attention."""
