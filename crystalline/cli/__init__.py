"""The commands: one file each, which parses, builds the settings and calls the layers below."""
