"""Money: accounts, transfers, holds, receipts, in integers only."""
