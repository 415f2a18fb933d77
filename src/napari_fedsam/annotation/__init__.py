"""The annotation session: prompts, masks, accept and undo, without Qt."""
