"""Makes kernel + initramfs + bootstrap.iso."""
