// What scrolls sideways is reached by the keyboard too, also the wrappers that the theme puts around tables later.
function reach() {
  for (const each of document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])")) each.tabIndex = 0;
}
reach();
new MutationObserver(reach).observe(document.body, { childList: true, subtree: true });
