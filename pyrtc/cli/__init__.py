"""The command line. `main.py` dispatches; each other module is one command or one kind of word that commands take."""
