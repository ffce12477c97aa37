"""`pipeline init`: a first configuration, from a template or from another tool's file."""
