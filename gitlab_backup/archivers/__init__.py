"""What moves a component between an instance and a backup."""
