"""`python -m swarm` is `swarm`."""

from swarm.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
