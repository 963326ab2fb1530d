"""How publishers lay their images out: one small reader a layout, over folders and archives alike."""
