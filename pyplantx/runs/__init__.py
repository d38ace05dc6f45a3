"""One run of one reactor: from its start, through all that it asks for, to its end or its error."""
