"""A store of recordings: standard sharded Zarr v3, a Parquet index, and a direct reader."""
