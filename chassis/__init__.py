"""What every service needs and no service's own rules: see DESIGN section 6."""
