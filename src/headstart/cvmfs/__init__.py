"""CernVM-FS's repository format: bytes in, values out; no disk, no network, no clock."""
