"""What tests share: servers, archives, images, stand-ins."""
