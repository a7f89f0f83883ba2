"""The runner: this node's assignments against the containers that carry this node's labels."""
