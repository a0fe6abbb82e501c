"""How pictures and figures look, for `data` and `engine` alike."""
