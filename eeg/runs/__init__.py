"""What has been run: run folders, their files, lists of them, searches."""
