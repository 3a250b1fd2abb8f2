"""`pit-keras sweep` in a clone, with the same flags."""

from pit_keras.cli import main

if __name__ == "__main__":
    main(command="sweep")
