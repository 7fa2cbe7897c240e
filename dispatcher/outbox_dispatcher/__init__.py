"""The dispatcher: claim, execute, record, stay alive."""
