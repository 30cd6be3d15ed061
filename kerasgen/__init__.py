"""kerasgen"""
