"""Pure: from the typed spec to what each pod is: its name, its command line, its revision."""
