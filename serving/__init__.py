"""What a device needs: from image files to masks with an exported engine, without torch."""
