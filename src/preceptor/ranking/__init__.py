"""From measures to a ranking: metrics, bootstrap, warnings. Pure: no models, no disks."""
