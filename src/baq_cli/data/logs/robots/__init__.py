"""Logs that other tools for robots write: a folder of LeRobot's, a file of robomimic's."""
