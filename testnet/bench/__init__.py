"""What the main job costs, measured on emulated hosts beside the raw engine: `./testnet/run bench`."""
