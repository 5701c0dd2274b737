"""From measures to a ranking: metrics, inference, warnings. Pure: no models, no disks."""
