"""What the world model dreams: open-loop predictions and the pictures of them."""
