"""How good the decisions are, measured on files with known answers. Pure but for reading files and writing reports."""
