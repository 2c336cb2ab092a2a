"""Reports as HTML: one page that needs neither network nor script. Needs the extra `report`."""
