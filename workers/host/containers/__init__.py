"""What a host does with its containers: the Engine, what there is, and what is made and removed."""
