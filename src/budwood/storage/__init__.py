"""Files that appear whole or not at all, arrays by content, and the room that they take."""
