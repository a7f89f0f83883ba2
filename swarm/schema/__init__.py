"""What people write and read: task files and command-line values in, stable JSON shapes out."""
