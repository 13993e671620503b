"""The stages of this program, one file each; `preparation.stage.stage_kinds` finds them by name."""
