"""The synthetic sky: skies whose truth is known, written in the surveys' own formats."""
