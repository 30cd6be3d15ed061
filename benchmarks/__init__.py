"""What kerasgen is measured by: each module runs its contenders side by side and says which bars hold."""
