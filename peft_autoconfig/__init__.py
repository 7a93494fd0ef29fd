"""Finds small, good PEFT configurations. Importing it registers our methods with PEFT."""
