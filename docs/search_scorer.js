// How the site's search ranks results: guides, then the names of the reference, then pages about this project, and last its inside.
// Without it, Sphinx puts each name that contains the words above all guides.
var Scorer = {
  score: ([page, title, anchor, description, score]) => {
    if (/^docs\/(reference\/(building_blocks|native)$|decisions\/)/.test(page)) return score - 100;
    const project = /^(CHANGELOG|CONTRIBUTING|docs\/(architecture|defects|differences|differences-1x|notes_map|packaging|platform_contract|server_tests))$/;
    return project.test(page) ? score - 20 : score;
  },
  // A name of the reference that is what was typed is above text that has it, and below titles.
  objNameMatch: 11,
  objPartialMatch: 1,
  objPrio: {},
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
